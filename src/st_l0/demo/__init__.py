"""A page to try a model or an index in the browser, and the same as a JSON API."""
