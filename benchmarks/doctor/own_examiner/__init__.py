"""An examination of the doctor on trimtab's own runs, by an author who does not know its rules.

Real short runs are trained through trimtab's public interface, with one mistake each or none; whether a mistake did
harm is told by the same run without it, never by the doctor. Only its table of codes was read.
"""
