"""The sections of a report, without any markup."""
