"""The meta-learner: which base models run in an era, and with what weight, decided before its labels are known."""
