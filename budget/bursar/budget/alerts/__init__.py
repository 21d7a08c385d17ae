"""What somebody has to be told, and how they are told: thresholds, forecasts and anomalies, signed webhooks."""
