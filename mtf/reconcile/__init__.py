"""The reconciler: gathers what is committed, recorded and live, and carries a plan out."""
