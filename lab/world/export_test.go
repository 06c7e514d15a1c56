package world

// What TestMain needs; it lives in the outer test package, because the lab
// imports this one.
const ChildMark = childMark

var RunChild = runChild
