"""What a table is: columns, types, changes, selection; knows Arrow and nothing of plugins."""
