# The results for people.
def number: if . == null then "-" else (. * 100 | round / 100 | tostring) as $t | if $t | test("\\.") then ($t | split(".")) as [$a, $b] | "\($a).\(($b + "0")[:2])" else $t + ".00" end end;
def right($width): " " * ($width - length) + .;
def left($width): . + " " * ($width - length);
. as $all | .summary as $s |
def row($words; $key; $unit):
  ($words | left(38)) + ([$s.kup[$key].min, $s.kup[$key].median, $s.kup[$key].max, $s.plain[$key].median | number | right(9)] | join("")) + "  " + $unit;
"kup \(.kup), Kubernetes \(.kubernetes): \(.masters) + \(.minions) machines, \(.runs | length) runs",
"on \(.machine.cpu), \(.machine.cores) cores, \(.machine.memoryMiB) MiB; \(.machine.system), kernel \(.machine.kernel), \(.machine.engine), cgroups \(.machine.cgroups); load \(.machine.loadBefore) before",
"",
("" | left(38)) + (["min", "median", "max", "plain" | right(9)] | join("")),
row("machines up"; "machines"; "s"),
row("/readyz"; "readyz"; "s"),
row("all nodes Ready"; "nodes"; "s"),
row("first pod running"; "pod"; "s"),
row("first correct DNS answer in a pod"; "dns"; "s"),
row("the gate's extra answers"; "gate"; "s more"),
row("kup up"; "up"; "s"),
row("kup up again"; "again"; "s"),
row("kup down"; "down"; "s"),
row("CPU of kup up"; "usage.up.cpuSeconds"; "CPU s"),
row("CPU of the engine's commands"; "usage.up.engineCpuSeconds"; "CPU s"),
row("memory of kup up, peak"; "usage.up.memoryMiB"; "MiB"),
row("CPU of all machines"; "machinesCpuSeconds"; "CPU s"),
row("all CPU seconds by cores"; "cpuBound"; "s"),
($s.kup | to_entries | map(select(.key | startswith("units."))) | sort_by(-.value.median) | .[:8][] | row("  " + (.key | ltrimstr("units.")); .key; "CPU s")),
(if $s.ratio then "", "kup / plain shell script, to the first correct DNS answer: \($s.ratio.dns.median | number) (from \($s.ratio.dns.min | number) to \($s.ratio.dns.max | number))" else empty end)
