# The results on AWS for people.
def number: (. * 100 | round / 100 | tostring) as $t | if $t | test("\\.") then ($t | split(".")) as [$a, $b] | "\($a).\(($b + "0")[:2])" else $t + ".00" end;
def right($width): " " * ($width - length) + .;
def left($width): . + " " * ($width - length);
. as $all |
def row($size; $words; $key; $unit):
  $size.summary[$key] as $of | (if ($size.minions == 4 and $size.vpc == "own") or ($key | endswith("memoryMiB")) then $all.goals[$key] else null end) as $goal |
  ($words | left(44)) + ([$of.min, $of.median, $of.max | if $unit == "calls" then tostring else number end | right(9)] | join("")) + "  " + ($unit | left(6)) +
  (if $goal == null then "" else "  goal: at most \($goal)" + (if $of.median > $goal then ", missed" else "" end) end) | sub(" +$"; "");
def verbs: { up: "kup up", again: "kup up again", down: "kup down" } | to_entries[];
def reading: [to_entries[] | select(.key | test(":(Describe|Get|List|Head|Simulate|Decode)")) | .value] | add;
def names: to_entries | sort_by(-.value, .key) | map(if .value > 1 then "\(.key) ×\(.value)" else .key end) | join(", ");
"kup \(.kup) on \(.machine.emulator), an emulated AWS; \(.sizes[0].runs | length) runs, the sizes in turn",
"on \(.machine.cpu), \(.machine.cores) cores, \(.machine.memoryMiB) MiB; \(.machine.system), kernel \(.machine.kernel); load \(.machine.loadBefore) before",
(.sizes[] | . as $size |
  "",
  ("1 + \(.minions) machines, one zone, \({ own: "its own VPC", given: "a given VPC" }[.vpc])" | left(44)) + (["min", "median", "max" | right(9)] | join("")),
  (verbs |
    row($size; .value; .key + ".wall"; "s"),
    row($size; "  while no answer was waited for (own)"; .key + ".own"; "s"),
    row($size; "  CPU"; .key + ".cpuSeconds"; "CPU s"),
    row($size; "  memory, peak"; .key + ".memoryMiB"; "MiB"),
    row($size; "  calls"; .key + ".calls"; "calls"),
    row($size; "  of which mutating"; .key + ".mutating"; "calls"))),
"",
"1000 minions need four zones in a VPC of their own, but \(.machine.emulator) puts all machines of a group into its first subnet: a given VPC has room.",
"Calls that only read, for any number of minions as many (goal):",
(verbs | "  " + (.value | left(14)) + ([.key as $verb | $all.sizes[] | "\(.runs | last | .[$verb].names | reading) for 1 + \(.minions), \(.vpc) VPC"] | join("; "))),
"The emulator's slowest answers, in the last run:",
(.sizes[] | "  1 + \(.minions), \(.vpc) VPC: " + (.runs[-1] as $run | [verbs | "\(.value) \($run[.key].slowest | "\(.name) \(.seconds | number) s")"] | join("; "))),
# Which calls they are, where there are too many.
(.sizes[0] as $size | verbs | . as $verb |
  select([$all.goals | to_entries[] | select(.key | test("^" + $verb.key + "\\.(calls|mutating)$")) | $size.summary[.key].median > .value] | any) |
  "Calls of \($verb.value), 1 + \($size.minions): " + ($size.runs | last | .[$verb.key].names | names))
