"""How a step is computed: Fabric, precision, random numbers, and what ranks agree on."""
