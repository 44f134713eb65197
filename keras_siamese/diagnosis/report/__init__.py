"""The report of a diagnosis: errors pair by pair, curves with their limits, pictures, and the HTML page."""
