"""Documents on an OpenSearch cluster, for what outgrows one machine."""

from st_l0.index.opensearch.engine import OpenSearchIndex

__all__ = ["OpenSearchIndex"]
