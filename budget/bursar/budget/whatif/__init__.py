"""What would have been, and what is to come: dry runs of a policy, estimates of runs, forecasts of budgets."""
