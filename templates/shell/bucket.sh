# get OBJECT FILE [SECONDS]: from the cluster's bucket, by the machine's own role (imds.sh). $why is what went wrong.
get() {
	why="$1 can't be had from the bucket yet"
	code=$(printf 'user = "%s:%s"\nheader = "x-amz-security-token: %s"\nheader = "x-amz-content-sha256: %s"\nheader = "x-amz-expected-bucket-owner: %s"\n' \
		"$key" "$secret" "$session" e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 "$account" |
		curl -s -m "${3:-60}" -K - --aws-sigv4 "aws:amz:$region:s3" -o "$2" -w '%{http_code}' "$bucket/$1") || code="$code, curl $?"
	[ "$code" = 200 ] && return
	why="$why (HTTP $code)"
	return 1
}
