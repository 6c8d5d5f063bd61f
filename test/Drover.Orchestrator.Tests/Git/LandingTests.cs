using Drover.Orchestrator.Git;

namespace Drover.Orchestrator.Tests.Git;

/// <summary>Landings while the user has another branch, or nothing of the target, checked out.</summary>
public sealed class LandingTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task P06_lands_once_with_two_parents_and_trailers_in_two_git_processes()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        repo.Run("checkout", "-q", "-b", "mine");
        var tip = repo.Oid("trunk");
        var (worktree, work) = await repo.WorkAsync("task-k3f9", p => GitTestRepo.Write(p, "a.txt", "a"));
        var (old, @new) = await repo.CandidateAsync(worktree, work);
        var started = repo.Repository.Git.Started;
        Assert.IsType<LandResult.Landed>(await repo.LandAsync(old, @new));
        Assert.Equal(2, repo.Repository.Git.Started - started);
        Assert.IsType<LandResult.Landed>(await repo.LandAsync(old, @new));
        Assert.Equal($"{tip} {work.Oid}", repo.Run("log", "-1", "--format=%P", "trunk"));
        Assert.Equal("task-k3f9|1|Ada Lovelace", repo.Run("log", "-1", "--format=%(trailers:key=Drover-Task,valueonly,separator=)|%(trailers:key=Drover-Attempt,valueonly,separator=)|%an", "trunk"));
        Assert.Equal("1", repo.Run("rev-list", "--count", "--first-parent", tip + "..trunk"));
        Assert.Equal(@new, await repo.Landing.FindLandedAsync("refs/heads/trunk", @new, worktree.Name, work.Oid, tip, Ct));
        Assert.Equal(@new, await repo.Landing.FindLandedAsync("refs/heads/trunk", null, worktree.Name, work.Oid, tip, Ct));
    }

    [Fact]
    public async Task Whole_life_of_a_task_takes_a_known_number_of_git_processes()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var name = new AttemptName("task-k3f9", 1);
        var gate = new GateWorktree(repo.Repository, TimeProvider.System);
        var control = new ControlFiles(repo.Repository);
        var (git, target) = (repo.Repository.Git, "refs/heads/trunk");
        var steps = new List<string>();
        var (last, clock) = (git.Started, TimeProvider.System.GetTimestamp());
        var worktree = await repo.Worktrees.EnsureAsync(name, repo.Oid("trunk"), Ct);
        Count("worktree", 3);
        var before = await control.CaptureAsync(worktree, Ct);
        Count("capture", 1);
        GitTestRepo.Write(worktree.Path, "a.txt", "a");
        var work = await repo.WorkCommit.CreateAsync(worktree, GitTestRepo.Request("w"), Ct);
        Count("commit", 8);
        Assert.Empty(await control.CompareAsync(worktree, before, Ct));
        Count("compare", 1);
        var tip = await repo.Landing.ResolveTargetAsync(target, Ct);
        var tree = ((MergeOutcome.Clean)await repo.Landing.MergeAsync(tip, work.Oid, Ct)).Tree;
        var oid = await repo.Landing.BuildCommitAsync(tree, tip, work.Oid, name, "t", GitTestRepo.Ada, GitTestRepo.Date, Ct);
        Count("merge", 3);
        await gate.PrepareAsync(0, tree, [], Ct);
        Count("gate", 2);
        await repo.LandAsync(tip, oid);
        Count("land", 5);
        await repo.Worktrees.RemoveAsync(name, Ct);
        Count("remove", 7);
        TestContext.Current.TestOutputHelper?.WriteLine(string.Join("  ", steps));

        void Count(string step, int most)
        {
            Assert.InRange(git.Started - last, 1, most);
            steps.Add($"{step} {git.Started - last} in {TimeProvider.System.GetElapsedTime(clock).TotalMilliseconds:0} ms");
            (last, clock) = (git.Started, TimeProvider.System.GetTimestamp());
        }
    }

    [Fact]
    public async Task G03_forged_trailers_prove_nothing()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var tip = repo.Oid("trunk");
        var name = new AttemptName("task-k3f9", 1);
        var (_, work) = await repo.WorkAsync("task-k3f9", p => GitTestRepo.Write(p, "a.txt", "a"));
        repo.Run("commit", "-q", "--allow-empty", "-m", "forged\n\nDrover-Task: task-k3f9\nDrover-Attempt: 1");
        repo.Run("merge", "-q", "--no-ff", "-m", "forged\n\nDrover-Task: task-k3f9\nDrover-Attempt: 2", work.Oid);
        Assert.Null(await repo.Landing.FindLandedAsync("refs/heads/trunk", null, name, work.Oid, tip, Ct));
        Assert.Null(await repo.Landing.FindLandedAsync("refs/heads/trunk", new string('1', 40), name, work.Oid, tip, Ct));
    }

    [Fact]
    public async Task Title_cannot_add_trailers_or_control_characters()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var (worktree, work) = await repo.WorkAsync("task-k3f9", p => GitTestRepo.Write(p, "a.txt", "a"));
        var tip = repo.Oid("trunk");
        var oid = await repo.Landing.BuildCommitAsync(work.Tree, tip, work.Oid, worktree.Name, "Fix\u001b[2J it $(id)\n\nDrover-Task: task-x", GitTestRepo.Ada, GitTestRepo.Date, Ct);
        Assert.Equal("Fix [2J it $(id)\n\nDrover-Task: task-k3f9\nDrover-Attempt: 1", repo.Run("log", "-1", "--format=%B", oid));
        Assert.Equal(oid, await repo.Landing.BuildCommitAsync(work.Tree, tip, work.Oid, worktree.Name, "Fix\u001b[2J it $(id)", GitTestRepo.Ada, GitTestRepo.Date, Ct));
    }

    [Fact]
    public async Task D02_a_conflict_keeps_both_and_an_unrelated_third_lands()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var one = await repo.WorkAsync("task-one", p => GitTestRepo.Write(p, "src/one.txt", "1\n2\nONE\n4\n5\n"));
        var two = await repo.WorkAsync("task-two", p => GitTestRepo.Write(p, "src/one.txt", "1\n2\nTWO\n4\n5\n"));
        var three = await repo.WorkAsync("task-three", p => GitTestRepo.Write(p, "src/three.txt", "3\n"));
        var first = await repo.CandidateAsync(one.Worktree, one.Work);
        Assert.IsType<LandResult.Landed>(await repo.LandAsync(first.Old, first.New));
        var conflict = Assert.IsType<MergeOutcome.Conflict>(await repo.Landing.MergeAsync(repo.Oid("trunk"), two.Work.Oid, Ct));
        Assert.Equal(["src/one.txt"], conflict.Paths);
        Assert.Contains("<<<<<<<", conflict.Hunks, StringComparison.Ordinal);
        Assert.Contains("ONE", conflict.Hunks, StringComparison.Ordinal);
        Assert.Contains("TWO", conflict.Hunks, StringComparison.Ordinal);
        var third = await repo.CandidateAsync(three.Worktree, three.Work);
        Assert.IsType<LandResult.Landed>(await repo.LandAsync(third.Old, third.New));
        Assert.Equal(two.Work.Oid, repo.Oid(two.Worktree.Name.AttemptRef));
        Assert.Equal("", repo.Run("status", "--porcelain"));
    }

    [Fact]
    public async Task G04_a_conflict_turn_is_solved_in_the_worktree_and_then_lands()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        await repo.LandTaskAsync("task-one", p => GitTestRepo.Write(p, "src/one.txt", "1\n2\nONE\n4\n5\n"));
        repo.Run("checkout", "-q", "-b", "mine");
        var start = repo.Oid("trunk~1");
        var worktree = await repo.Worktrees.EnsureAsync(new AttemptName("task-two", 1), start, Ct);
        GitTestRepo.Write(worktree.Path, "src/one.txt", "1\n2\nTWO\n4\n5\n");
        GitTestRepo.Write(worktree.Path, "keep.log", "ignored");
        var work = await repo.WorkCommit.CreateAsync(worktree, GitTestRepo.Request("two"), Ct);
        var tip = repo.Oid("trunk");
        var conflict = Assert.IsType<MergeOutcome.Conflict>(await repo.Landing.MergeAsync(tip, work.Oid, Ct));
        await Crash.AtAsync("turn.files", () => repo.Landing.BeginConflictTurnAsync(worktree, work.Oid, tip, conflict, GitTestRepo.Ada, GitTestRepo.Date, Ct));
        var turn = await repo.Landing.BeginConflictTurnAsync(worktree, work.Oid, tip, conflict, GitTestRepo.Ada, GitTestRepo.Date, Ct);
        Assert.Contains("<<<<<<<", File.ReadAllText(Path.Combine(worktree.Path, "src/one.txt")), StringComparison.Ordinal);
        Assert.Equal("", repo.RunIn(worktree.Path, "status", "--porcelain"));
        Assert.Equal("ignored", File.ReadAllText(Path.Combine(worktree.Path, "keep.log")));
        var unsolved = await repo.WorkCommit.CreateAsync(worktree, GitTestRepo.Request("two", turn), Ct);
        Assert.Equal(["src/one.txt"], Assert.Single(unsolved.Findings, f => f.Kind == FindingKind.ConflictMarker).Paths);
        GitTestRepo.Write(worktree.Path, "src/one.txt", "1\n2\nONE TWO\n4\n5\n");
        var solved = await repo.WorkCommit.CreateAsync(worktree, GitTestRepo.Request("two", turn), Ct);
        Assert.Empty(solved.Findings);
        Assert.Equal(["src/one.txt"], solved.Changes.Select(c => c.Path));
        repo.Run("merge-base", "--is-ancestor", work.Oid, solved.Oid);
        Assert.NotEqual(0, repo.Try(repo.Root, "merge-base", "--is-ancestor", turn.Scaffold, solved.Oid).Code);
        var candidate = await repo.CandidateAsync(worktree, solved);
        Assert.IsType<LandResult.Landed>(await repo.LandAsync(candidate.Old, candidate.New));
        Assert.Equal("1\n2\nONE TWO\n4\n5", repo.Run("show", "trunk:src/one.txt"));
    }

    [Fact]
    public async Task Unrelated_histories_are_told_from_conflicts_and_unknown_commits()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        repo.Run("checkout", "-q", "--orphan", "other");
        repo.Run("commit", "-q", "-m", "other");
        Assert.IsType<MergeOutcome.Unrelated>(await repo.Landing.MergeAsync(repo.Oid("trunk"), repo.Oid("other"), Ct));
        await Assert.ThrowsAsync<GitException>(() => repo.Landing.MergeAsync(repo.Oid("trunk"), new string('1', 40), Ct));
    }

    [Fact]
    public async Task F09_two_landers_race_and_both_land_once()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        repo.Run("checkout", "-q", "-b", "mine");
        var start = repo.Oid("trunk");
        var works = new List<(Worktree, Work)>();
        for (var i = 0; i < 6; i++)
            works.Add(await repo.WorkAsync("task-r" + i, p => GitTestRepo.Write(p, $"file{i}.txt", "x")));
        // Outside the landing lock, as another tool would: only the compare-and-swap decides.
        await Task.WhenAll(works.Select(async w =>
        {
            while (true)
            {
                var (old, @new) = await repo.CandidateAsync(w.Item1, w.Item2);
                if (await repo.Landing.AdvanceAsync("refs/heads/trunk", @new, old, TimeSpan.FromSeconds(30), Ct) == RefMove.Moved)
                    return;
            }
        }));
        Assert.Equal("6", repo.Run("rev-list", "--count", "--first-parent", start + "..trunk"));
        Assert.Equal(6, repo.Run("log", "--first-parent", "--format=%(trailers:key=Drover-Task,valueonly,separator=)", start + "..trunk").Split('\n').Distinct().Count());
    }

    [Fact]
    public async Task F09_a_commit_of_the_user_makes_the_candidate_stale()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var (worktree, work) = await repo.WorkAsync("task-k3f9", p => GitTestRepo.Write(p, "a.txt", "a"));
        var (old, @new) = await repo.CandidateAsync(worktree, work);
        repo.Run("commit", "-q", "--allow-empty", "-m", "user");
        var user = repo.Oid("trunk");
        Assert.IsType<LandResult.Stale>(await repo.LandAsync(old, @new));
        Assert.Equal(user, repo.Oid("trunk"));
        (old, @new) = await repo.CandidateAsync(worktree, work);
        Assert.IsType<LandResult.Landed>(await repo.LandAsync(old, @new));
    }

    [Fact]
    public async Task F11_gc_between_object_and_ref_is_seen_and_the_rebuilt_commit_lands()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        repo.Run("checkout", "-q", "-b", "mine");
        var (worktree, work) = await repo.WorkAsync("task-k3f9", p => GitTestRepo.Write(p, "a.txt", "a"));
        var (old, @new) = await repo.CandidateAsync(worktree, work);
        repo.Run("gc", "-q", "--prune=now");
        Assert.IsType<LandResult.ObjectMissing>(await repo.LandAsync(old, @new));
        Assert.Null(await repo.Landing.FindLandedAsync("refs/heads/trunk", @new, worktree.Name, work.Oid, old, Ct));
        Assert.Equal(@new, (await repo.CandidateAsync(worktree, work)).New);
        Assert.IsType<LandResult.Landed>(await repo.LandAsync(old, @new));
    }

    [Fact]
    public async Task G09_a_stale_lock_on_the_target_is_cleared_a_fresh_one_is_waited_for()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        repo.Run("checkout", "-q", "-b", "mine");
        var (worktree, work) = await repo.WorkAsync("task-k3f9", p => GitTestRepo.Write(p, "a.txt", "a"));
        var (old, @new) = await repo.CandidateAsync(worktree, work);
        var file = Path.Combine(repo.Root, ".git/refs/heads/trunk.lock");
        File.WriteAllText(file, "");
        var waiting = Assert.IsType<LandResult.WaitingLock>(await repo.Sync.LandAsync("refs/heads/trunk", old, @new, TimeSpan.Zero, Ct));
        Assert.Equal(file, waiting.File);
        Assert.True(File.Exists(file), "a young lock is not ours to remove");
        File.SetLastWriteTimeUtc(file, TimeProvider.System.GetUtcNow().UtcDateTime.AddSeconds(-11));
        using (File.OpenRead(file))
            Assert.IsType<LandResult.WaitingLock>(await repo.Sync.LandAsync("refs/heads/trunk", old, @new, TimeSpan.Zero, Ct));
        Assert.IsType<LandResult.Landed>(await repo.LandAsync(old, @new));
        Assert.False(File.Exists(file));
    }

    [Fact]
    public async Task G09_a_git_that_lived_since_before_protects_its_lock()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var file = Path.Combine(repo.Root, ".git/refs/heads/trunk.lock");
        File.WriteAllText(file, "");
        File.SetLastWriteTimeUtc(file, DateTime.UnixEpoch);
        var fake = Path.Combine(repo.Top, "git");
        File.Copy("/bin/sleep", fake);
        using var git = System.Diagnostics.Process.Start(new System.Diagnostics.ProcessStartInfo(fake, ["600"]) { WorkingDirectory = repo.Root })!;
        Assert.False(await StaleLock.TryClearAsync(repo.Repository, file, TimeProvider.System, Ct));
        Assert.Contains($"process {git.Id}", StaleLock.Describe(repo.Repository, file), StringComparison.Ordinal);
        git.Kill();
        await git.WaitForExitAsync(Ct);
        Assert.True(await StaleLock.TryClearAsync(repo.Repository, file, TimeProvider.System, Ct));
        var users = Path.Combine(repo.Root, ".git/index.lock");
        File.WriteAllText(users, "");
        File.SetLastWriteTimeUtc(users, DateTime.UnixEpoch);
        Assert.False(await StaleLock.TryClearAsync(repo.Repository, users, TimeProvider.System, Ct));
        Assert.True(File.Exists(users));
    }

    [Fact]
    public async Task G16_planted_hooks_and_configured_programs_never_run()
    {
        using var repo = new GitTestRepo();
        repo.Write(".gitattributes", "*.txt diff=evil merge=evil\n");
        repo.CommitAll("attributes");
        await repo.OpenAsync();
        repo.Run("branch", "plain");
        var sentinel = Path.Combine(repo.Top, "ran");
        // git itself runs these for the fixture too, so everything is planted last and no plain git follows before the check.
        foreach (var hook in (string[])["pre-commit", "post-checkout", "post-commit", "reference-transaction", "post-index-change", "post-merge", "commit-msg", "prepare-commit-msg"])
        {
            GitTestRepo.Write(repo.Root, ".git/hooks/" + hook, $"#!/bin/sh\necho {hook} >> '{sentinel}'\n");
            File.SetUnixFileMode(Path.Combine(repo.Root, ".git/hooks", hook), (UnixFileMode)0b111_101_101);
        }
        File.AppendAllText(Path.Combine(repo.Root, ".git/config"), $"""
            [core]
            	fsmonitor = "echo fsmonitor >> '{sentinel}'; false"
            	editor = "echo editor >> '{sentinel}'"
            	sshCommand = "echo ssh >> '{sentinel}'"
            	pager = "echo pager >> '{sentinel}'; cat"
            [filter "evil"]
            	clean = "echo clean >> '{sentinel}'; cat"
            	smudge = "echo smudge >> '{sentinel}'; cat"
            	process = "echo process >> '{sentinel}'"
            [diff "evil"]
            	command = "echo diff >> '{sentinel}'"
            	textconv = "echo textconv >> '{sentinel}'; cat"
            [diff]
            	external = "echo external >> '{sentinel}'"
            [merge "evil"]
            	driver = "echo merge >> '{sentinel}'; true"
            [gpg]
            	program = "{sentinel}-gpg"
            [commit]
            	gpgsign = true
            [alias]
            	read-tree = "!echo alias >> '{sentinel}'"
            """);
        var target = await repo.Repository.ResolveAsync("refs/heads/trunk", Ct);
        var worktree = await repo.Worktrees.EnsureAsync(new AttemptName("task-k3f9", 1), target!, Ct);
        GitTestRepo.Write(worktree.Path, ".gitattributes", "*.txt filter=evil diff=evil merge=evil\n");
        GitTestRepo.Write(worktree.Path, "src/one.txt", "changed\n");
        GitTestRepo.Write(worktree.Path, "nested/.git/HEAD", "ref: refs/heads/x\n");
        GitTestRepo.Write(worktree.Path, "nested/.git/config", $"[core]\n\tfsmonitor = echo nested >> '{sentinel}'\n");
        Directory.CreateDirectory(Path.Combine(worktree.Path, "nested/.git/objects"));
        Directory.CreateDirectory(Path.Combine(worktree.Path, "nested/.git/refs"));
        GitTestRepo.Write(worktree.Path, "nested/n.txt", "n");
        var work = await repo.WorkCommit.CreateAsync(worktree, GitTestRepo.Request("w"), Ct);
        var merged = Assert.IsType<MergeOutcome.Clean>(await repo.Landing.MergeAsync(target!, work.Oid, Ct));
        var landing = await repo.Landing.BuildCommitAsync(merged.Tree, target!, work.Oid, worktree.Name, "t", GitTestRepo.Ada, GitTestRepo.Date, Ct);
        await new GateWorktree(repo.Repository, TimeProvider.System).PrepareAsync(0, merged.Tree, [], Ct);
        Assert.IsType<LandResult.Landed>(await repo.LandAsync(target!, landing));
        Assert.Equal("changed\n", repo.Read("src/one.txt"));
        await repo.Worktrees.RemoveAsync(worktree.Name, Ct);
        Assert.False(File.Exists(sentinel), File.Exists(sentinel) ? File.ReadAllText(sentinel) : "");
        // The traps are real: the user's own git falls into them.
        repo.Try(repo.Root, "status");
        Assert.True(File.Exists(sentinel));
    }
}
