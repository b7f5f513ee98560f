# Gets the bundle out of the cluster's bucket, by the machine's own role, and puts it in its place by one rename. On standard input a line
# for each file: its SHA-256, its object, which is compressed, its mode, and its path. Whoever started this may still be putting them
# there: each is taken as soon as it is, and checked as it was unpacked.
set -eu
umask 022
imds='http://169.254.169.254'
bucket='{{ url }}'
region='{{ region }}'
account='{{ account }}'
# How long one file is waited for, in seconds, while a slow line brings those before it and itself.
patience=900
{% include "shell/imds.sh" -%}
{% include "shell/bucket.sh" -%}
{% include "shell/incoming.sh" -%}
now() { date +%s; }
# Whether somebody still waits for the end of this: what nobody waits for must not take the place of what came later.
awaited() { printf . 2> /dev/null; }
# one LINE SUM OBJECT MODE PATH
one() {
  line=$1
  shift
  until=$(($(now) + patience))
  until get "$2" "$line.gz" 1200; do
    [ "$(now)" -lt "$until" ] || { echo "$why" >&2; return 1; }
    awaited || return 1
    sleep 1
    # A role may be given another login meanwhile.
    login || :
  done
  mkdir -p "new/${4%/*}" && gzip -dc < "$line.gz" > "new/$4" && rm "$line.gz" && have=$(sha256sum < "new/$4") || return 1
  [ "${have%% *}" = "$1" ] || { echo "$2 in the bucket is not what it should be: $4 is refused" >&2; return 1; }
  chmod "$3" "new/$4"
}
# Takes one file after the other of those that nobody has taken yet. Two may be the same but for their paths.
lane() {
  n=0
  while read -r sum object mode path; do
    n=$((n + 1))
    mkdir "taken/$n" 2> /dev/null || continue
    one "$n" "$sum" "$object" "$mode" "$path" < /dev/null || { kill "$$"; return 1; }
  done < list
}
incoming '{{ dir }}'
cat > list
mkdir new taken
until=$(($(now) + patience))
until login; do
  [ "$(now)" -lt "$until" ] || { echo "$why" >&2; exit 1; }
  awaited || exit 1
  sleep 1
done
for _ in 1 2 3 4; do
  lane &
  jobs="$jobs $!"
done
for job in $jobs; do wait "$job"; done
jobs=
while read -r sum _ _ path; do echo "$sum  $path"; done < list > new/SHA256SUMS
awaited
settle '{{ bundle }}'
echo kup-unpacked
