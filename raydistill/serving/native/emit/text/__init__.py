"""Text in compiled code without allocation: UTF-8, cleaning, tables of Unicode."""
