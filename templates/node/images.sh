# Puts the bundle's images into containerd's store, where they are not there yet. A pod ahead of its image would wait for a quarter of a
# minute, or for ever where no registry can be reached.
set -eu
bundle={{ bundle }}
ctr() { "$bundle/bin/ctr" --namespace k8s.io images "$@"; }
there=$(ctr ls -q)
jobs=
while read -r file image; do
  # Not all of them may have come yet.
  [ -e "$bundle/images/$file.tar" ] || continue
  case "
$there
" in *"
$image
"*) ;;
    # Its own way to unpack takes a third of the time that the transfer service's takes; and all at once.
    *)
      ctr import --local "$bundle/images/$file.tar" > /dev/null &
      jobs="$jobs $!"
      ;;
  esac
done << 'END'
pause {{ pause_image }}
{%- for file in images|dictsort if file[0] != "pause" %}
{{ file[0] }} {{ file[1] }}
{%- endfor %}
END
for job in $jobs; do wait "$job"; done

