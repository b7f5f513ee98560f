# From the runs to everything that is said of them: each number's least, middle and greatest value.
def spread: sort | { min: first, median: (if length % 2 == 1 then .[length / 2 | floor] else (.[length / 2 - 1] + .[length / 2]) / 2 end), max: last };
def rounded: if type == "number" then . * 1000 | round / 1000 elif type == "object" then map_values(rounded) elif type == "array" then map(rounded) else . end;
# Numbers by their path, "usage.up.cpuSeconds".
def flat: [paths(type == "number") as $p | { key: ($p | map(tostring) | join(".")), value: getpath($p) }] | from_entries;
def summary: map(select(. != null) | flat) | if length == 0 then null else . as $all | first | keys_unsorted |
    map(. as $k | { key: $k, value: [$all[][$k] | select(. != null)] | spread }) | from_entries end;
{
  machine: $machine[0], kup: $version[0].version, kubernetes: $version[0].kubernetes.default, masters: $masters, minions: $minions,
  runs: .,
  summary: { kup: (map(.kup) | summary), plain: (map(.plain) | summary), ratio: (map(select(.plain != null) | { dns: (.kup.dns / .plain.dns) }) | summary) }
} | rounded
