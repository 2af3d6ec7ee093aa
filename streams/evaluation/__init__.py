"""`freshet evaluate`: what vectors are worth, made offline or by the running pipeline."""
