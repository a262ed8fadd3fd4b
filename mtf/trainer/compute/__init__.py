"""What a step needs: the step engine, Fabric, random numbers, messages between ranks."""
