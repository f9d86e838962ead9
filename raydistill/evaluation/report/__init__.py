"""The report: `metrics.json` to Markdown, to a page, and to the table on the console."""
