//! A tree of twenty clones, three deep, all written and collected in fast motion: each shows what was written to it, and what is
//! stored is what is live or kept.

use super::*;

const CLONES: usize = 20;
const ROUNDS: u64 = 12;

struct Member {
    name: String,
    place: World,
    volume: Volume,
    model: Model,
    depth: u64,
    clones: u64,
}

/// Numbers that look random and repeat.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

async fn log_bytes(place: &World) -> u64 {
    place.bucket.list(names::LOG_FOLDER, None).await.unwrap().iter().map(|entry| entry.object_bytes).sum()
}

#[tokio::test(start_paused = true)]
async fn a_tree_of_clones_shows_what_was_written_and_holds_what_is_live_or_kept() {
    let (world, volume, model) = parent().await;
    let place = world.beside("db1");
    let mut draw = Draw(7);
    let first = Member { name: "db1".to_owned(), place, volume, model, depth: 0, clones: 0 };
    let mut tree = vec![first];
    for round in 0..ROUNDS {
        while tree.len() <= CLONES && tree.len() as u64 <= (round + 1) * 3 {
            let may: Vec<usize> = (0..tree.len()).filter(|nth| tree[*nth].depth < 3).collect();
            let nth = may[draw.below(may.len() as u64) as usize];
            let name = format!("c{}", tree.len());
            let of = &mut tree[nth];
            let (place, _) = clone((&of.place, &of.name, &of.volume), None, &name).await.unwrap();
            of.clones += 1;
            let (model, depth) = (of.model.clone(), of.depth + 1);
            let volume = open(&place).await;
            tree.push(Member { name, place, volume, model, depth, clones: 0 });
        }
        for member in &mut tree {
            for _ in 0..3 {
                let (from, count) = (draw.below(600), 1 + draw.below(80));
                let fill = 1 + draw.below(255) as u8;
                write(&member.volume, &mut member.model, from, count, fill).await;
            }
            match draw.below(4) {
                0 => collect(&member.volume).await,
                1 => {
                    member.volume.close().await.unwrap();
                    member.volume = open(&member.place).await;
                }
                _ => {}
            }
        }
    }
    assert_eq!(tree.len(), CLONES + 1);
    assert_eq!(tree.iter().map(|member| member.depth).max(), Some(3));
    for member in &tree {
        collect(&member.volume).await;
    }
    for member in &tree {
        assert_shows(&member.volume, &member.model).await;
        let reader = Volume::open_read_only(member.place.bucket.clone(), world.options()).await.unwrap();
        assert_shows(&reader, &member.model).await;
        let stats = member.volume.stats();
        let (own, log) = (stats.live_bytes - stats.shared_bytes, log_bytes(&member.place).await);
        // Nothing but its own live blocks, and for each clone what lived when it was made.
        let most = own + member.clones * 700 * BLOCK;
        assert!(log <= most + most / 4 + MIB, "{}: {log} bytes of log, {own} live", member.name);
    }
    // From the leaves on all go, and nothing is left.
    let shared: u64 = tree.iter().map(|member| member.volume.stats().shared_bytes).sum();
    assert!(shared > 0);
    while let Some(nth) = (0..tree.len()).rev().find(|nth| tree[*nth].clones == 0) {
        let gone = tree.remove(nth);
        gone.volume.close().await.unwrap();
        let parent = inspect(&gone.place.bucket).await.unwrap().parents.pop();
        match parent {
            None => {
                remove(&gone.place.bucket, &without_a_marker(&gone.place), |_| {}).await.unwrap();
                break;
            }
            Some(parent) => {
                let of = tree.iter_mut().find(|of| parent.path == format!("../{}", of.name)).unwrap();
                rm(&gone.place, &of.volume).await.unwrap();
                of.clones -= 1;
            }
        }
        assert!(stored(&gone.place, "").await.is_empty(), "{}", gone.name);
    }
    assert!(tree.is_empty());
    assert!(world.store.names("").is_empty());
}
