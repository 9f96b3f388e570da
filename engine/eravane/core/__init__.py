"""The base of everything: errors, configuration, files, events, seeds, telemetry, the facts of this machine."""
