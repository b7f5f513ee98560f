# From the runs on AWS to everything that is said of them: for each size each number's least, middle and greatest value, and the goals.
def spread: sort | { min: first, median: (if length % 2 == 1 then .[length / 2 | floor] else (.[length / 2 - 1] + .[length / 2]) / 2 end), max: last };
def rounded: if type == "number" then . * 1000 | round / 1000 elif type == "object" then map_values(rounded) elif type == "array" then map(rounded) else . end;
# Numbers by their path, "up.cpuSeconds".
def flat: [paths(type == "number") as $p | { key: ($p | map(tostring) | join(".")), value: getpath($p) }] | from_entries;
# What is told by calls' names differs from run to run.
def numbers: { up, again, down } | map_values(del(.names, .refused, .slowest)) | flat;
{
  machine: $machine[0], kup: $version[0].version,
  # For 1 + 4 machines in one zone; memory for any number of them.
  goals: { "up.own": 1.5, "up.mutating": 45, "up.calls": 90, "again.wall": 0.7, "again.calls": 30, "again.mutating": 0, "down.own": 1.5,
    "up.memoryMiB": 80, "again.memoryMiB": 80, "down.memoryMiB": 80 },
  sizes: (group_by([.vpc == "given", .minions]) | map({
    masters: first.masters, minions: first.minions, vpc: first.vpc,
    summary: (map(numbers) as $all | $all | first | keys_unsorted | map(. as $k | { key: $k, value: [$all[][$k]] | spread }) | from_entries),
    runs: map({ up, again, down })
  }))
} | rounded
