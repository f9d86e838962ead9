"""Dev and test splits drawn from the transfer set, where no judged pairs are them."""
