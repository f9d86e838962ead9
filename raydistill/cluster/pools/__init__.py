"""Items to the machines of a cluster that grows, shrinks and loses machines."""
