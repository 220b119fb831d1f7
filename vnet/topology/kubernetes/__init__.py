"""Kubernetes manifests as a topology: `manifest` reads, `groups` says who is meant, `convert` writes."""
