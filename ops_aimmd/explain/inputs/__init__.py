"""Which inputs and atoms does the learned committor depend on?"""
