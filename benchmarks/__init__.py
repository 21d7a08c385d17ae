"""What Bursar costs, in ratios, side by side in one run; `make bench` prints it."""
