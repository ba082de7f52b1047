import fc from "fast-check";

// That a bug is seen is enough: the smallest example is for people.
fc.configureGlobal({ endOnFailure: true });
