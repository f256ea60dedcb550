// Package traffic decides how the requests of a region are divided over the members of an import. Split computes the
// shares. Demand and Health estimate from load reports what Split needs: how many requests clients send, and which
// members fail. Move says whether new shares are worth publishing, and Version carries them in the version of a load
// assignment.
//
// It is pure: time is an argument, and load reports come in as plain numbers.
//
// # The arithmetic of Split
//
// For one import: demand D(r) per region; members m with region, ready endpoints n(m) and scaler s(m); a rate per
// endpoint, or none. cap(m) = n(m) x rate x s(m). The ranks of a region are: its own members together (also when it
// has none); then each region that its EdgePool lists as nearest, in that order; then all others together, after the
// listed ranks of every region. With mode Spray there is one rank with all members.
//
//  1. Fill rank by rank. All regions fill their rank 1 before any region fills its rank 2. At a rank all regions fill
//     together from time 0 to 1. Each does so at a constant rate, which is what it had not placed when the rank began,
//     over those members of its rank that are not full, in proportion to their cap. A region without demand takes part
//     and fills nobody, so that its first request has a place.
//  2. Demand exceeds capacity. Every cap is first multiplied by demand / capacity: all members are overfilled alike
//     and nearness still holds. What a region still cannot place, because some members are held out for it, is spread
//     in proportion to cap. Nothing is rejected.
//  3. No rate. Nobody fills and demand plays no part. At a level u only members with s(m) > u count, and the first
//     rank with a ready one takes all, in proportion to n(m). The shares are the average over u from 0 to the largest
//     scaler of a ready member.
//  4. No capacity. Where every scaler is 0, every scaler counts as 1. Where no endpoint is ready anywhere, there are no
//     shares.
//  5. Drains. A member that is drained by d(m) counts with its scaler in steps 1 to 4 at the levels u < 1 - d(m), and
//     with scaler 0 above. The shares are the average over u from 0 to the largest 1 - d(m) of a ready member. So a drain
//     moves shares in a straight line, with a rate or without, and overfills nobody half way whom it does not overfill at
//     its end. Where every ready member is drained, none is.
//
// A member that is held out for a region counts as n(m) = 0 there. All held-out members together get 1 % of the
// region's requests as probes, taken off first. Where every member would be held out none is, because their failures
// say nothing about any one of them; members that the ranks leave without a share then get the 1 %, so that each is
// tried.
//
// A member is dead in a region when not even connections to it can be made. Where all members are dead, requests go to
// all alike, in proportion to n(m), and the other backends of a rule get nearly all of the import's weight
// (FailoverFactors).
//
// ExampleSplit shows two regions of which one overflows into the other.
package traffic
