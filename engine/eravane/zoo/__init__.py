"""The zoo: many XGBoost models, one per feature set, feature group, target and seed."""
