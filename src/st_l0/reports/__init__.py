"""What runs found, as one page: figures of the papers, tables with significance, queries won and lost."""
