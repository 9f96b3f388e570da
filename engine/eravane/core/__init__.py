"""What everything rests on: errors, configuration, files, events, seeds, telemetry, the facts of this machine."""
