"""What operators start by hand: refresh, sweep, forget and audit. One file each."""
