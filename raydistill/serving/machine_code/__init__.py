"""Machine code: functions compiled by numba, and the folder that caches them."""
