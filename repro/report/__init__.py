"""What people read of a run: the comparison table, as Markdown and CSV too; reads results.json's content alone."""
