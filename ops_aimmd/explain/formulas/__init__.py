"""Which short formula of the descriptors has the committor that the shots show?"""
