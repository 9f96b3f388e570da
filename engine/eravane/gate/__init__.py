"""The meta-learner: decides which base models run in an era, and with what weight, before its labels are known."""
