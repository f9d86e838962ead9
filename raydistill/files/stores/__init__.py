"""Object stores: their clients behind one interface, and what their errors mean."""
