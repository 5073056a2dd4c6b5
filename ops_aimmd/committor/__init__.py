"""The learned committor: model, likelihood, training set, training, density and calibration. Knows no OPS."""
