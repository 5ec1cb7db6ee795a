"""The bundled small reasoner: procedural tasks, its trained weights and the script that trains them."""
