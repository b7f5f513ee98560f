# Of names of snapshots on standard input, those that are of no more use now ($1, in seconds since 1970). What stays: all of the last 24
# hours, the last of each day (UTC) of the last 7 days, those made by hand in the last 30 days, and the newest of all.
outdated() {
	day=$(date -u -d "@$(($1 - 86400))" +%Y%m%d%H%M%S)
	week=$(date -u -d "@$(($1 - 604800))" +%Y%m%d%H%M%S)
	month=$(date -u -d "@$(($1 - 2592000))" +%Y%m%d%H%M%S)
	later=
	LC_ALL=C sort -r | while read -r name; do
		time=${name#etcd-} time=${time%%-*}
		date=${time%T*} clock=${time#*T} clock=${clock%Z}
		reason=${name##*-} last=
		if [ "$date" != "$later" ]; then last=yes; fi
		if [ -n "$later" ] && [ "$date$clock" -le "$day" ] &&
			{ [ -z "$last" ] || [ "$date$clock" -le "$week" ]; } &&
			{ [ "$reason" != hand ] || [ "$date$clock" -le "$month" ]; }; then
			echo "$name"
		fi
		later=$date
	done
}
