"""Faust, and nothing else: the consumer runtime of a lane. No other folder imports Faust."""
