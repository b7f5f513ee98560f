"""What the emulator was started with, from its environment (scripts/aws-emulator sets it)."""

import os

# lenient: LocalStack as it is. strict: AWS's rules and waiting. hostile: strict, and AWS on its worst days.
PROFILE = os.environ.get("KUP_EMULATOR_PROFILE", "lenient")
STRICT = PROFILE in ("strict", "hostile")
HOSTILE = PROFILE == "hostile"
# From which all of hostile's decisions follow.
SEED = os.environ.get("KUP_SEED", "0")
# By how much what takes time on AWS takes less here.
TIME_SCALE = float(os.environ.get("KUP_TIME_SCALE", "0.1"))
# Where calls are written down.
JOURNAL = os.environ.get("KUP_JOURNAL")
# Whether instances have machines, which say themselves when they run.
MACHINES = bool(os.environ.get("KUP_MACHINES"))

# Calls that change nothing begin so.
READS = ("Describe", "Get", "List", "Head", "Search", "Simulate", "Decode", "Select")
