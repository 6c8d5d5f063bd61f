using Drover.Orchestrator.Git;

namespace Drover.Orchestrator.Tests.Git;

/// <summary>Landings on a branch the user has checked out, with every kind of bytes lying around.</summary>
[Trait("Speed", "slow")]
public sealed class CheckoutSyncTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    public static TheoryData<string> Points => ["land.journal", "land.locked", "land.advanced", "land.followed", "land.indexed", "land.unlocked"];

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task P07_the_users_bytes_are_identical_after_landings(bool onTarget)
    {
        using var repo = new GitTestRepo(folder: "my wörk space");
        repo.Write("dir with space/ünï.txt", "u\n");
        repo.Write("tool.sh", "#!/bin/sh\n");
        File.SetUnixFileMode(Path.Combine(repo.Root, "tool.sh"), (UnixFileMode)0b111_101_101);
        File.CreateSymbolicLink(Path.Combine(repo.Root, "link"), "README.md");
        repo.CommitAll("more");
        await repo.OpenAsync();
        if (!onTarget)
            repo.Run("checkout", "-q", "-b", "mine");
        Disturb(repo);
        var (files, staged, status) = (repo.Files(), repo.Run("diff", "--cached"), repo.Run("status", "--porcelain"));
        Assert.IsType<LandResult.Landed>(await repo.LandTaskAsync("task-one", p =>
        {
            GitTestRepo.Write(p, "src/one.txt", "landed\n");
            GitTestRepo.Write(p, "dir with space/nëw.txt", "n\n");
            File.Delete(Path.Combine(p, "link"));
            File.CreateSymbolicLink(Path.Combine(p, "link"), "src/one.txt");
            File.SetUnixFileMode(Path.Combine(p, "tool.sh"), (UnixFileMode)0b110_100_100);
        }));
        Assert.IsType<LandResult.Landed>(await repo.LandTaskAsync("task-two", p => File.Delete(Path.Combine(p, "dir with space/ünï.txt"))));
        if (onTarget)
        {
            files["src/one.txt"] = files["src/one.txt"].Split(' ')[0..^1].Aggregate((a, b) => a + " " + b) + " " + Convert.ToHexString("landed\n"u8);
            Assert.Equal("n\n", repo.Read("dir with space/nëw.txt"));
            files["dir with space/nëw.txt"] = repo.Files()["dir with space/nëw.txt"];
            files["link"] = "-> src/one.txt";
            Assert.False(Posix.IsExecutable(Path.Combine(repo.Root, "tool.sh")));
            files["tool.sh"] = repo.Files()["tool.sh"];
            files.Remove("dir with space/ünï.txt");
        }
        Assert.Equal(files, repo.Files());
        Assert.Equal(staged, repo.Run("diff", "--cached"));
        Assert.Equal(status, repo.Run("status", "--porcelain"));
        Assert.Equal("landed", repo.Run("show", "trunk:src/one.txt"));
        AssertTidy(repo);
    }

    [Theory]
    [InlineData("true")]
    [InlineData("input")]
    [InlineData("false")]
    public async Task G05_line_ends_of_a_following_checkout_are_the_users(string setting)
    {
        using var repo = new GitTestRepo();
        repo.Write(".gitattributes", "*.sh text eol=lf\n");
        repo.CommitAll("attributes");
        repo.Run("config", "core.autocrlf", setting);
        repo.Run("rm", "-rq", "--cached", ".");
        repo.Run("reset", "-q", "--hard");
        await repo.OpenAsync();
        var end = setting == "true" ? "\r\n" : "\n";
        Assert.IsType<LandResult.Landed>(await repo.LandTaskAsync("task-one", p =>
        {
            GitTestRepo.Write(p, "src/one.txt", $"x{end}y{end}");
            GitTestRepo.Write(p, "run.sh", "a\nb\n");
        }));
        Assert.Equal($"x{end}y{end}", repo.Read("src/one.txt"));
        Assert.Equal("a\nb\n", repo.Read("run.sh"));
        Assert.Equal("4", repo.Run("cat-file", "-s", "trunk:src/one.txt"));
        Assert.Equal("", repo.Run("status", "--porcelain"));
    }

    [Fact]
    public async Task G05_five_processes_when_the_target_is_checked_out()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var (worktree, work) = await repo.WorkAsync("task-k3f9", p => GitTestRepo.Write(p, "a.txt", "a"));
        var (old, @new) = await repo.CandidateAsync(worktree, work);
        var started = repo.Repository.Git.Started;
        Assert.IsType<LandResult.Landed>(await repo.LandAsync(old, @new));
        Assert.Equal(5, repo.Repository.Git.Started - started);
    }

    [Theory]
    [InlineData("edited")]
    [InlineData("staged")]
    [InlineData("untracked")]
    [InlineData("ignored")]
    [InlineData("assumed")]
    [InlineData("folder")]
    [InlineData("parent")]
    public async Task G05_holds_and_names_the_path_when_the_users_bytes_are_in_the_way(string kind)
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var (worktree, work) = await repo.WorkAsync("task-k3f9", p =>
        {
            GitTestRepo.Write(p, "src/one.txt", "landed\n");
            GitTestRepo.Write(p, "new.txt", "landed\n");
            GitTestRepo.Write(p, "deep/new.txt", "landed\n");
            GitTestRepo.Write(p, ".gitignore", "");
            GitTestRepo.Write(p, "app.log", "landed\n");
        });
        var path = kind switch
        {
            "edited" or "staged" or "assumed" => "src/one.txt",
            "untracked" => "new.txt",
            "ignored" => "app.log",
            "folder" => "new.txt/x.log",
            _ => "deep",
        };
        repo.Write(path, "the user's\n");
        if (kind == "staged")
            repo.Run("add", path);
        if (kind == "assumed")
            repo.Run("update-index", "--assume-unchanged", path);
        var (files, index, tip) = (repo.Files(), File.ReadAllBytes(Path.Combine(repo.Root, ".git/index")), repo.Oid("trunk"));
        var (old, @new) = await repo.CandidateAsync(worktree, work);
        var probed = await repo.Sync.ProbeAsync("refs/heads/trunk", old, @new, Ct);
        var held = Assert.IsType<LandResult.WaitingCheckout>(await repo.LandAsync(old, @new));
        Assert.Equal((held.Checkout, held.Command), (probed?.Checkout, probed?.Command));
        Assert.Equal(held.Paths, probed!.Paths);
        if (kind != "assumed")
            Assert.Equal([path], held.Paths);
        Assert.Contains("git -C", held.Command, StringComparison.Ordinal);
        Assert.Equal(tip, repo.Oid("trunk"));
        Assert.Equal(files, repo.Files());
        Assert.Equal(index, File.ReadAllBytes(Path.Combine(repo.Root, ".git/index")));
        AssertTidy(repo);
        if (kind == "assumed")
            repo.Run("update-index", "--no-assume-unchanged", path);
        Posix.Delete(Path.Combine(repo.Root, path.Split('/')[0] == "src" ? path : path.Split('/')[0]));
        repo.Run("checkout", "HEAD", "--", "src/one.txt");
        Assert.IsType<LandResult.Landed>(await repo.LandAsync(old, @new));
        Assert.Equal("", repo.Run("status", "--porcelain"));
    }

    [Fact]
    public async Task G05_the_named_command_frees_the_checkout()
    {
        using var repo = await new GitTestRepo(folder: "it's here").OpenAsync();
        var (worktree, work) = await repo.WorkAsync("task-k3f9", p => GitTestRepo.Write(p, "src/one.txt", "landed\n"));
        repo.Write("src/one.txt", "the user's\n");
        var (old, @new) = await repo.CandidateAsync(worktree, work);
        var held = Assert.IsType<LandResult.WaitingCheckout>(await repo.LandAsync(old, @new));
        // What a person would paste into a shell.
        var info = new System.Diagnostics.ProcessStartInfo("/bin/sh", ["-c", held.Command]) { RedirectStandardOutput = true, RedirectStandardError = true };
        info.Environment["HOME"] = repo.Home;
        using var shell = System.Diagnostics.Process.Start(info)!;
        await shell.WaitForExitAsync(Ct);
        Assert.Equal(0, shell.ExitCode);
        Assert.IsType<LandResult.Landed>(await repo.LandAsync(old, @new));
        Assert.Equal("the user's", repo.Run("show", "stash@{0}:src/one.txt"));
    }

    [Fact]
    public async Task G05_a_touched_file_does_not_hold()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        File.SetLastWriteTimeUtc(Path.Combine(repo.Root, "src/one.txt"), DateTime.UnixEpoch);
        Assert.IsType<LandResult.Landed>(await repo.LandTaskAsync("task-k3f9", p => GitTestRepo.Write(p, "src/one.txt", "landed\n")));
        Assert.Equal("landed\n", repo.Read("src/one.txt"));
    }

    [Fact]
    public async Task G05_follows_in_a_linked_worktree_of_the_user()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        repo.Run("checkout", "-q", "-b", "mine");
        repo.Run("worktree", "add", "-q", "../linked tree", "trunk");
        var linked = Path.Combine(repo.Top, "linked tree");
        GitTestRepo.Write(linked, "mine.txt", "m");
        Assert.IsType<LandResult.Landed>(await repo.LandTaskAsync("task-k3f9", p => GitTestRepo.Write(p, "src/one.txt", "landed\n")));
        Assert.Equal("landed\n", File.ReadAllText(Path.Combine(linked, "src/one.txt")));
        Assert.Equal("?? mine.txt", repo.RunIn(linked, "status", "--porcelain"));
    }

    [Fact]
    public async Task G07_an_unfinished_operation_of_the_user_holds_the_landing()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var (worktree, work) = await repo.WorkAsync("task-k3f9", p => GitTestRepo.Write(p, "a.txt", "a"));
        repo.Run("checkout", "-q", "-b", "side", "HEAD");
        repo.Write("README.md", "side\n");
        repo.CommitAll("side");
        repo.Run("checkout", "-q", "trunk");
        repo.Write("README.md", "trunk\n");
        repo.CommitAll("trunk");
        Assert.NotEqual(0, repo.Try(repo.Root, "rebase", "side").Code);
        var (old, @new) = await repo.CandidateAsync(worktree, work);
        Assert.Contains("rebase --abort", (await repo.Sync.ProbeAsync("refs/heads/trunk", old, @new, Ct))!.Command, StringComparison.Ordinal);
        Assert.Contains("rebase --abort", Assert.IsType<LandResult.WaitingCheckout>(await repo.LandAsync(old, @new)).Command, StringComparison.Ordinal);
        repo.Run("rebase", "--abort");
        Assert.IsType<LandResult.Landed>(await repo.LandAsync(old, @new));
    }

    [Fact]
    public async Task G09_the_users_index_lock_is_never_removed()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var (worktree, work) = await repo.WorkAsync("task-k3f9", p => GitTestRepo.Write(p, "a.txt", "a"));
        var (old, @new) = await repo.CandidateAsync(worktree, work);
        var file = Path.Combine(repo.Root, ".git/index.lock");
        File.WriteAllText(file, "");
        File.SetLastWriteTimeUtc(file, DateTime.UnixEpoch);
        var waiting = Assert.IsType<LandResult.WaitingLock>(await repo.Sync.LandAsync("refs/heads/trunk", old, @new, TimeSpan.Zero, Ct));
        Assert.Equal(file, waiting.File);
        Assert.True(File.Exists(file));
        Assert.Equal(old, repo.Oid("trunk"));
        File.Delete(file);
        Assert.IsType<LandResult.Landed>(await repo.LandAsync(old, @new));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task G05_a_probe_that_finds_nothing_in_the_way_touches_nothing(bool onTarget)
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var (worktree, work) = await repo.WorkAsync("task-k3f9", Edit);
        if (!onTarget)
            repo.Run("checkout", "-q", "-b", "mine");
        Disturb(repo);
        File.SetLastWriteTimeUtc(Path.Combine(repo.Root, "src/one.txt"), DateTime.UnixEpoch);
        var (old, @new) = await repo.CandidateAsync(worktree, work);
        // Somebody's lock is no business of a probe; it neither waits for it nor takes it.
        var file = Path.Combine(repo.Root, ".git/index.lock");
        File.WriteAllText(file, "");
        var git = Snapshot(repo);
        var (files, started) = (repo.Files(), repo.Repository.Git.Started);
        Assert.Null(await repo.Sync.ProbeAsync("refs/heads/trunk", old, @new, Ct));
        Assert.InRange(repo.Repository.Git.Started - started, 0, onTarget ? 5 : 0);
        Assert.Equal(git, Snapshot(repo));
        Assert.Equal(files, repo.Files());
        File.Delete(file);
        AssertTidy(repo);
        Assert.DoesNotContain(Directory.GetFiles(repo.Repository.Hermetic.IndexDirectory), f => Path.GetFileName(f).StartsWith("probe", StringComparison.Ordinal));
        // A moved target is for the landing to say.
        Assert.Null(await repo.Sync.ProbeAsync("refs/heads/trunk", @new, @new, Ct));
        Assert.Null(await repo.Sync.ProbeAsync("refs/heads/trunk", old, new string('1', 40), Ct));
        Assert.IsType<LandResult.Landed>(await repo.LandAsync(old, @new));

        static SortedDictionary<string, string> Snapshot(GitTestRepo repo) => new(Directory.EnumerateFiles(Path.Combine(repo.Root, ".git"), "*", SearchOption.AllDirectories)
            .ToDictionary(f => f, f => $"{File.GetLastWriteTimeUtc(f):O} {Convert.ToHexString(File.ReadAllBytes(f))}"), StringComparer.Ordinal);
    }

    [Theory]
    [MemberData(nameof(Points))]
    public async Task G06_a_stop_at_any_point_leaves_no_lock_and_a_checkout_that_agrees_with_the_ref(string point)
    {
        using var repo = await new GitTestRepo().OpenAsync();
        Disturb(repo);
        var status = repo.Run("status", "--porcelain");
        var (worktree, work) = await repo.WorkAsync("task-k3f9", Edit);
        var (old, @new) = await repo.CandidateAsync(worktree, work);
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(Ct);
        GitCrash.Hook = p =>
        {
            if (p == point)
                stop.Cancel();
        };
        var landed = false;
        try
        {
            landed = await repo.Sync.LandAsync("refs/heads/trunk", old, @new, TimeSpan.FromSeconds(5), stop.Token) is LandResult.Landed;
        }
        catch (OperationCanceledException)
        {
        }
        GitCrash.Hook = null;
        Assert.True(stop.IsCancellationRequested);
        Assert.Equal(landed ? @new : old, repo.Oid("trunk"));
        Assert.Equal(landed ? "landed\n" : "1\n2\n3\n4\n5\n", repo.Read("src/one.txt"));
        Assert.Equal(status, repo.Run("status", "--porcelain"));
        AssertTidy(repo);
        Assert.IsType<LandResult.Landed>(await repo.LandAsync(old, @new));
        Assert.Equal(status, repo.Run("status", "--porcelain"));
    }

    [Fact]
    public async Task G06_a_stop_while_the_ref_moves_waits_for_it_and_finishes()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var (worktree, work) = await repo.WorkAsync("task-k3f9", Edit);
        var (old, @new) = await repo.CandidateAsync(worktree, work);
        var (began, go) = (Path.Combine(repo.Top, "began"), Path.Combine(repo.Top, "go"));
        var slow = repo.With($"case \"$*\" in *update-ref*) : > '{began}'; while [ ! -e '{go}' ]; do sleep 0.02; done;; esac; exec git \"$@\"");
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(Ct);
        var landing = new CheckoutSync(slow, TimeProvider.System).LandAsync("refs/heads/trunk", old, @new, TimeSpan.FromSeconds(5), stop.Token);
        using var timer = new PeriodicTimer(TimeSpan.FromMilliseconds(10));
        while (!File.Exists(began) && !landing.IsCompleted)
            await timer.WaitForNextTickAsync(Ct);
        await stop.CancelAsync();
        File.WriteAllText(go, "");
        Assert.IsType<LandResult.Landed>(await landing);
        Assert.Equal(@new, repo.Oid("trunk"));
        Assert.Equal("", repo.Run("status", "--porcelain"));
        AssertTidy(repo);
    }

    [Theory]
    [InlineData("exit 1", false)]
    [InlineData("git \"$@\"; exit 1", true)]
    [InlineData("git \"$@\"; kill -9 $$", true)]
    public async Task G06_an_error_while_the_ref_moves_leaves_no_lock_and_a_checkout_that_agrees_with_it(string instead, bool moves)
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var (worktree, work) = await repo.WorkAsync("task-k3f9", Edit);
        var (old, @new) = await repo.CandidateAsync(worktree, work);
        var broken = repo.With($"case \"$*\" in *update-ref*) {instead};; esac; exec git \"$@\"");
        var sync = new CheckoutSync(broken, TimeProvider.System);
        Assert.Equal(moves, await GitTestRepo.SurvivesAsync(() => sync.LandAsync("refs/heads/trunk", old, @new, TimeSpan.Zero, Ct)));
        Assert.Equal(moves ? @new : old, repo.Oid("trunk"));
        Assert.Equal("", repo.Run("status", "--porcelain"));
        AssertTidy(repo);
    }

    [Theory]
    [MemberData(nameof(Points))]
    public async Task G06_a_kill_at_any_point_lands_exactly_once_when_repeated(string point)
    {
        using var repo = await new GitTestRepo().OpenAsync();
        Disturb(repo);
        var status = repo.Run("status", "--porcelain");
        var (worktree, work) = await repo.WorkAsync("task-k3f9", Edit);
        var (old, @new) = await repo.CandidateAsync(worktree, work);
        await Crash.AtAsync(point, () => repo.LandAsync(old, @new));
        Assert.IsType<LandResult.Landed>(await repo.LandAsync(old, @new));
        Assert.Equal(@new, repo.Oid("trunk"));
        Assert.Equal("landed\n", repo.Read("src/one.txt"));
        Assert.False(File.Exists(Path.Combine(repo.Root, "src/two.txt")));
        Assert.Equal(status, repo.Run("status", "--porcelain"));
        AssertTidy(repo);
        Assert.Null(await repo.Sync.RepairAsync(Ct));
    }

    [Theory]
    [MemberData(nameof(Points))]
    public async Task G05_while_a_landing_is_half_done_the_user_cannot_commit_its_inverse(string point)
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var (worktree, work) = await repo.WorkAsync("task-k3f9", Edit);
        var (old, @new) = await repo.CandidateAsync(worktree, work);
        await Crash.AtAsync(point, () => repo.LandAsync(old, @new));
        repo.Try(repo.Root, "commit", "-q", "--allow-empty", "-a", "-m", "user");
        await repo.Sync.RepairAsync(Ct);
        if (repo.Oid("trunk") == old || repo.Run("rev-list", "trunk").Split('\n').Contains(@new) is false)
        {
            (old, @new) = await repo.CandidateAsync(worktree, work);
            Assert.IsType<LandResult.Landed>(await repo.LandAsync(old, @new));
        }
        Assert.Equal("landed", repo.Run("show", "trunk:src/one.txt"));
        Assert.Equal("", repo.Run("status", "--porcelain"));
    }

    [Fact]
    public async Task G06_half_written_files_are_finished_and_a_users_edit_is_kept()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        for (var i = 0; i < 6; i++)
            repo.Write($"f/{i}.txt", $"old {i}\n");
        repo.CommitAll("files");
        var (worktree, work) = await repo.WorkAsync("task-k3f9", p =>
        {
            for (var i = 0; i < 5; i++)
                GitTestRepo.Write(p, $"f/{i}.txt", $"new content {i}\n");
            File.Delete(Path.Combine(p, "f/5.txt"));
            GitTestRepo.Write(p, "g/added.txt", "added\n");
            File.SetUnixFileMode(Path.Combine(p, "f/0.txt"), (UnixFileMode)0b111_101_101);
        });
        var (old, @new) = await repo.CandidateAsync(worktree, work);
        await Crash.AtAsync("land.advanced", () => repo.LandAsync(old, @new));
        // As a killed read-tree leaves it: one done, one cut off, one removed and not yet written, one not begun; and an edit.
        repo.Write("f/0.txt", "new content 0\n");
        repo.Write("f/1.txt", "new con");
        File.Delete(Path.Combine(repo.Root, "f/2.txt"));
        repo.Write("f/4.txt", "the user's own\n");
        var repair = await repo.Sync.RepairAsync(Ct);
        Assert.Equal(["f/4.txt"], repair!.Left);
        for (var i = 0; i < 4; i++)
            Assert.Equal($"new content {i}\n", repo.Read($"f/{i}.txt"));
        Assert.True(Posix.IsExecutable(Path.Combine(repo.Root, "f/0.txt")));
        Assert.Equal("the user's own\n", repo.Read("f/4.txt"));
        Assert.Equal("added\n", repo.Read("g/added.txt"));
        Assert.False(File.Exists(Path.Combine(repo.Root, "f/5.txt")));
        Assert.Equal(" M f/4.txt", repo.Run("status", "--porcelain"));
        AssertTidy(repo);
    }

    [Theory]
    [InlineData("repair.locked")]
    [InlineData("repair.paths")]
    [InlineData("land.indexed")]
    [InlineData("land.unlocked")]
    public async Task G06_repair_itself_can_be_killed(string point)
    {
        using var repo = new GitTestRepo();
        repo.Run("config", "core.autocrlf", "true");
        repo.Run("rm", "-rq", "--cached", ".");
        repo.Run("reset", "-q", "--hard");
        await repo.OpenAsync();
        var (worktree, work) = await repo.WorkAsync("task-k3f9", Edit);
        var (old, @new) = await repo.CandidateAsync(worktree, work);
        await Crash.AtAsync("land.advanced", () => repo.LandAsync(old, @new));
        await Crash.AtAsync(point, () => repo.Sync.RepairAsync(Ct));
        await repo.Sync.RepairAsync(Ct);
        Assert.Equal("landed\r\n", repo.Read("src/one.txt"));
        Assert.Equal("", repo.Run("status", "--porcelain"));
        AssertTidy(repo);
    }

    [Fact]
    public async Task G06_a_lock_the_user_removed_by_hand_is_taken_again_and_a_foreign_one_is_waited_for()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var (worktree, work) = await repo.WorkAsync("task-k3f9", Edit);
        var (old, @new) = await repo.CandidateAsync(worktree, work);
        await Crash.AtAsync("land.advanced", () => repo.LandAsync(old, @new));
        var file = Path.Combine(repo.Root, ".git/index.lock");
        File.WriteAllText(file, "somebody else's");
        Assert.Equal(file, (await repo.Sync.RepairAsync(Ct))!.Waiting);
        Assert.IsType<LandResult.WaitingLock>(await repo.LandAsync(old, @new));
        Assert.Equal("somebody else's", File.ReadAllText(file));
        File.Delete(file);
        Assert.Empty((await repo.Sync.RepairAsync(Ct))!.Left);
        Assert.Equal("", repo.Run("status", "--porcelain"));
    }

    [Fact]
    public async Task F02_git_killed_at_random_moments_during_landings_loses_and_doubles_nothing()
    {
        using var repo = new GitTestRepo();
        for (var i = 0; i < 150; i++)
            repo.Write($"many/{i}.txt", $"old {i}\n");
        repo.CommitAll("many");
        await repo.OpenAsync();
        repo.Write("mine.txt", "mine\n");
        var start = repo.Oid("trunk");
        var (killed, halfDone) = (0, 0);
        for (var round = 0; round < 12; round++)
        {
            var (worktree, work) = await repo.WorkAsync($"task-r{round}", p =>
            {
                for (var i = 0; i < 150; i++)
                    GitTestRepo.Write(p, $"many/{i}.txt", $"round {round} {i}\n");
            });
            var (old, @new) = await repo.CandidateAsync(worktree, work);
            for (var k = 0; k < 4; k++)
                killed += await GitTestRepo.SurvivesAsync(() => new CheckoutSync(repo.Doomed(2 + (round % 6)), TimeProvider.System).LandAsync("refs/heads/trunk", old, @new, TimeSpan.Zero, Ct)) ? 0 : 1;
            halfDone += File.Exists(Path.Combine(repo.Root, ".drover/checkout-sync.json")) ? 1 : 0;
            repo.AgeLocks();
            Assert.IsType<LandResult.Landed>(await repo.LandAsync(old, @new));
            Assert.Equal("?? mine.txt", repo.Run("status", "--porcelain"));
            Assert.Equal(@new, repo.Oid("trunk"));
            AssertTidy(repo);
        }
        TestContext.Current.TestOutputHelper?.WriteLine($"{killed} landings ended by a killed git, {halfDone} left half done");
        Assert.Equal("12", repo.Run("rev-list", "--count", "--first-parent", start + "..trunk"));
        Assert.Equal("", repo.Run("fsck", "--no-dangling", "--no-progress"));
    }

    private static void Edit(string path)
    {
        GitTestRepo.Write(path, "src/one.txt", "landed\n");
        GitTestRepo.Write(path, "deep/er/new.txt", "new\n");
        File.Delete(Path.Combine(path, "src/two.txt"));
    }

    // Every kind of bytes a user may have lying around, none of them in the way of what lands.
    private static void Disturb(GitTestRepo repo)
    {
        repo.Write("README.md", "staged\n");
        repo.Write("staged-new.txt", "s\n");
        repo.Run("add", "README.md", "staged-new.txt");
        repo.Write("README.md", "staged and then edited\n");
        repo.Write("untracked dir/ü.txt", "u\r\n");
        repo.Write("debug.log", "ignored");
        File.CreateSymbolicLink(Path.Combine(repo.Root, "dangling"), "nowhere");
    }

    private static void AssertTidy(GitTestRepo repo)
    {
        Assert.False(File.Exists(Path.Combine(repo.Root, ".git/index.lock")));
        Assert.Empty(Directory.GetFiles(Path.Combine(repo.Root, ".git"), "drover-*"));
        Assert.False(File.Exists(Path.Combine(repo.Root, ".drover/checkout-sync.json")));
    }
}
