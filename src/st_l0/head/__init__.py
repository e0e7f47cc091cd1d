"""The MLM head fused with the masked max: no ``(documents, tokens, vocabulary)`` tensor is ever made."""
