"""What a run will take: hours, money, energy and bytes, from rates that are measured or given."""
