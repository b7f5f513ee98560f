"""Real machines behind the emulated AWS's instances: containers, networks, volumes and metadata, kept as the emulator's state says."""
