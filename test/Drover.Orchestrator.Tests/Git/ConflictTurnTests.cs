using Drover.Orchestrator.Git;
using Drover.Workflows;

namespace Drover.Orchestrator.Tests.Git;

/// <summary>Giving a conflict to an agent, killed and repeated while the target moves on.</summary>
public sealed class ConflictTurnTests
{
    private static readonly AttemptName Name = new("task-two", 1);

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("turn.intent")]
    [InlineData("turn.files")]
    [InlineData("turn.branch")]
    [InlineData("turn.index")]
    [InlineData("none")]
    public async Task G04_a_turn_nobody_worked_on_goes_on_to_the_tip_the_target_has_by_then(string point)
    {
        using var repo = await StartAsync();
        var (worktree, work) = await ConflictAsync(repo);
        if (point == "none")
            await BeginAsync(repo, worktree, work);
        else
            await Crash.AtAsync(point, () => BeginAsync(repo, worktree, work));
        MoveTarget(repo);
        var turn = await BeginAsync(repo, worktree, work);
        AssertGiven(repo, worktree, turn);
        Assert.Equal(repo.Oid("trunk"), turn.Tip);
        Assert.Equal(turn.Scaffold, (await BeginAsync(repo, worktree, work)).Scaffold);
        AssertGiven(repo, worktree, turn);
        await SolveAsync(repo, worktree, turn);
    }

    [Theory]
    [InlineData("turn.files", "turn.intent")]
    [InlineData("turn.intent", "turn.files")]
    [InlineData("turn.branch", "turn.files")]
    [InlineData("turn.index", "turn.branch")]
    public async Task G04_killed_again_on_the_way_to_the_next_tip(string first, string second)
    {
        using var repo = await StartAsync();
        var (worktree, work) = await ConflictAsync(repo);
        await Crash.AtAsync(first, () => BeginAsync(repo, worktree, work));
        MoveTarget(repo);
        await Crash.AtAsync(second, () => BeginAsync(repo, worktree, work));
        repo.Write("third.txt", "3\n");
        repo.CommitAll("third");
        var turn = await BeginAsync(repo, worktree, work);
        AssertGiven(repo, worktree, turn);
        await SolveAsync(repo, worktree, turn);
    }

    [Theory]
    [InlineData("edited", true)]
    [InlineData("edited", false)]
    [InlineData("added", true)]
    [InlineData("deleted", true)]
    [InlineData("committed", true)]
    [InlineData("committed", false)]
    [InlineData("detached", true)]
    public async Task G04_a_turn_an_agent_may_have_worked_on_is_kept_as_it_was_given(string kind, bool moved)
    {
        using var repo = await StartAsync();
        var (worktree, work) = await ConflictAsync(repo);
        var given = await BeginAsync(repo, worktree, work);
        var solved = "1\n2\nONE TWO\n4\n5\n";
        if (kind == "added")
            GitTestRepo.Write(worktree.Path, "notes.txt", "n");
        else if (kind == "deleted")
            File.Delete(Path.Combine(worktree.Path, "src/two.txt"));
        else
            GitTestRepo.Write(worktree.Path, "src/one.txt", solved);
        if (kind == "detached")
            repo.RunIn(worktree.Path, "checkout", "-q", "--detach");
        if (kind is "committed" or "detached")
            repo.RunIn(worktree.Path, "commit", "-q", "-a", "-m", "solved");
        if (moved)
            MoveTarget(repo);
        var status = repo.RunIn(worktree.Path, "status", "--porcelain");
        var head = repo.RunIn(worktree.Path, "rev-parse", "HEAD");
        var again = await BeginAsync(repo, worktree, work);
        Assert.Equal((given.Work, given.Tip, given.Scaffold), (again.Work, again.Tip, again.Scaffold));
        Assert.Equal(given.Paths, again.Paths);
        Assert.Equal(status, repo.RunIn(worktree.Path, "status", "--porcelain"));
        Assert.Equal(head, repo.RunIn(worktree.Path, "rev-parse", "HEAD"));
        GitTestRepo.Write(worktree.Path, "src/one.txt", solved);
        var done = await repo.WorkCommit.CreateAsync(worktree, GitTestRepo.Request("two", again), Ct);
        Assert.DoesNotContain(done.Findings, f => f.Kind == FindingKind.ConflictMarker);
        Assert.Contains("src/one.txt", done.Changes.Select(c => c.Path));
        // Commits of the agent stay; the scaffold alone does not.
        repo.Run("merge-base", "--is-ancestor", head == given.Scaffold ? given.Tip : head, done.Oid);
    }

    [Fact]
    public async Task G04_a_forged_turn_is_refused()
    {
        using var repo = await StartAsync();
        var (worktree, work) = await ConflictAsync(repo);
        // As ours would look, with a tip that never was the target's: its content would pass for the target's.
        var evil = repo.Run("commit-tree", "-p", "trunk", "-m", "evil", repo.Oid("trunk^{tree}"));
        var tree = repo.Try(repo.Root, "merge-tree", "--write-tree", evil, work.Oid).Output.Split('\n')[0];
        repo.Run("update-ref", Name.Branch, repo.Run("commit-tree", "-p", work.Oid, "-p", evil, "-m", "Conflicts to solve: task-two/1", tree));
        var error = await Assert.ThrowsAsync<DroverException>(() => BeginAsync(repo, worktree, work));
        Assert.Equal(ErrorCode.Conflict, error.Code);
        // The target's own tip, but with a tree that is not the merge.
        repo.Run("update-ref", Name.Branch, repo.Run("commit-tree", "-p", work.Oid, "-p", repo.Oid("trunk~1"), "-m", "Conflicts to solve: task-two/1", repo.Oid("trunk^{tree}")));
        Assert.Equal(ErrorCode.Conflict, (await Assert.ThrowsAsync<DroverException>(() => BeginAsync(repo, worktree, work))).Code);
    }

    [Fact]
    public async Task G04_the_agent_is_put_back_on_its_branch_for_the_turn()
    {
        using var repo = await StartAsync();
        var (worktree, work) = await ConflictAsync(repo, p => repo.RunIn(p, "checkout", "-q", "-b", "elsewhere"));
        var turn = await BeginAsync(repo, worktree, work);
        AssertGiven(repo, worktree, turn);
        GitTestRepo.Write(worktree.Path, "src/one.txt", "1\n2\nONE TWO\n4\n5\n");
        repo.RunIn(worktree.Path, "commit", "-q", "-a", "-m", "solved");
        var done = await repo.WorkCommit.CreateAsync(worktree, GitTestRepo.Request("two", turn), Ct);
        Assert.Equal(["own.txt", "src/one.txt"], done.Changes.Select(c => c.Path).Order(StringComparer.Ordinal));
        Assert.Equal(done.Oid, repo.Oid(Name.Branch));
    }

    [Fact]
    public async Task G04_a_conflict_that_is_gone_by_then_is_given_as_one_without_paths()
    {
        using var repo = await StartAsync();
        var (worktree, work) = await ConflictAsync(repo);
        await BeginAsync(repo, worktree, work);
        repo.Run("revert", "--no-edit", "trunk");
        var tip = repo.Oid("trunk");
        var clean = Assert.IsType<MergeOutcome.Clean>(await repo.Landing.MergeAsync(tip, work.Oid, Ct));
        var turn = await repo.Landing.BeginConflictTurnAsync(worktree, work.Oid, tip, new MergeOutcome.Conflict(clean.Tree, [], ""), GitTestRepo.Ada, GitTestRepo.Date, Ct);
        AssertGiven(repo, worktree, turn);
        Assert.Equal("1\n2\nTWO\n4\n5\n", File.ReadAllText(Path.Combine(worktree.Path, "src/one.txt")));
        var done = await repo.WorkCommit.CreateAsync(worktree, GitTestRepo.Request("two", turn), Ct);
        var candidate = await repo.CandidateAsync(worktree, done);
        Assert.IsType<LandResult.Landed>(await repo.LandAsync(candidate.Old, candidate.New));
        Assert.Equal("1\n2\nTWO\n4\n5", repo.Run("show", "trunk:src/one.txt"));
    }

    private static async Task<GitTestRepo> StartAsync()
    {
        var repo = new GitTestRepo();
        await repo.OpenAsync();
        return repo;
    }

    // The target changes the same line as the attempt, and brings a file of its own.
    private static async Task<(Worktree, Work)> ConflictAsync(GitTestRepo repo, Action<string>? bend = null)
    {
        var result = await repo.WorkAsync(Name.Task, p =>
        {
            bend?.Invoke(p);
            GitTestRepo.Write(p, "src/one.txt", "1\n2\nTWO\n4\n5\n");
            GitTestRepo.Write(p, "own.txt", "own\n");
        });
        repo.Write("src/one.txt", "1\n2\nONE\n4\n5\n");
        repo.Write("short-lived/f.txt", "f\n");
        repo.CommitAll("target");
        return result;
    }

    private static void MoveTarget(GitTestRepo repo)
    {
        repo.Run("rm", "-q", "short-lived/f.txt");
        repo.Write("src/two.txt", "moved\n");
        repo.CommitAll("target moves");
    }

    private static async Task<ConflictTurn> BeginAsync(GitTestRepo repo, Worktree worktree, Work work)
    {
        var tip = repo.Oid("trunk");
        var conflict = Assert.IsType<MergeOutcome.Conflict>(await repo.Landing.MergeAsync(tip, work.Oid, Ct));
        return await repo.Landing.BeginConflictTurnAsync(worktree, work.Oid, tip, conflict, GitTestRepo.Ada, GitTestRepo.Date, Ct);
    }

    private static void AssertGiven(GitTestRepo repo, Worktree worktree, ConflictTurn turn)
    {
        Assert.Equal("", repo.RunIn(worktree.Path, "status", "--porcelain"));
        Assert.Equal(turn.Scaffold, repo.Oid(Name.Branch));
        Assert.Equal("drover/task-two-1", repo.RunIn(worktree.Path, "branch", "--show-current"));
        Assert.Equal("", repo.RunIn(worktree.Path, "diff", "HEAD"));
    }

    private static async Task SolveAsync(GitTestRepo repo, Worktree worktree, ConflictTurn turn)
    {
        Assert.Contains("<<<<<<<", File.ReadAllText(Path.Combine(worktree.Path, "src/one.txt")), StringComparison.Ordinal);
        Assert.False(Directory.Exists(Path.Combine(worktree.Path, "short-lived")));
        GitTestRepo.Write(worktree.Path, "src/one.txt", "1\n2\nONE TWO\n4\n5\n");
        var solved = await repo.WorkCommit.CreateAsync(worktree, GitTestRepo.Request("two", turn), Ct);
        Assert.Empty(solved.Findings);
        Assert.Equal(["own.txt", "src/one.txt"], solved.Changes.Select(c => c.Path).Order(StringComparer.Ordinal));
        var candidate = await repo.CandidateAsync(worktree, solved);
        Assert.IsType<LandResult.Landed>(await repo.LandAsync(candidate.Old, candidate.New));
    }
}
