using System.Diagnostics;
using Drover.Orchestrator.Git;
using Drover.Workflows;

namespace Drover.Orchestrator.Tests.Git;

public sealed class GateWorktreeTests
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Folder_is_the_exact_tree_whatever_the_last_gate_left()
    {
        using var repo = await new GitTestRepo(folder: "ü gate").OpenAsync();
        var gate = new GateWorktree(repo.Repository, TimeProvider.System);
        var (_, work) = await repo.WorkAsync("task-k3f9", p =>
        {
            GitTestRepo.Write(p, "a.txt", "a");
            File.Delete(Path.Combine(p, "src/two.txt"));
        });
        var path = await gate.PrepareAsync(0, repo.Oid("trunk^{tree}"), [], Ct);
        Assert.Equal("two\n", File.ReadAllText(Path.Combine(path, "src/two.txt")));
        // What a test command may do to its folder.
        GitTestRepo.Write(path, "README.md", "jello\n");
        GitTestRepo.Write(path, "out.log", "ignored");
        GitTestRepo.Write(path, "bin/x", "x");
        GitTestRepo.Write(path, "node_modules/m", "m");
        GitTestRepo.Write(path, "sub/.git/HEAD", "ref: refs/heads/x\n");
        GitTestRepo.Write(path, "locked/x", "x");
        File.SetUnixFileMode(Path.Combine(path, "locked"), UnixFileMode.UserRead | UnixFileMode.UserExecute);
        File.CreateSymbolicLink(Path.Combine(path, "away"), repo.Root);
        File.Delete(Path.Combine(path, "src/one.txt"));
        await gate.PrepareAsync(0, work.Tree, ["node_modules/"], Ct);
        Assert.Equal(repo.Run("ls-tree", "-r", "--name-only", work.Oid).Split('\n').Append("node_modules/m").Where(f => File.Exists(Path.Combine(path, f))).Order(StringComparer.Ordinal),
            Directory.EnumerateFiles(path, "*", SearchOption.AllDirectories).Select(f => Path.GetRelativePath(path, f)).Order(StringComparer.Ordinal));
        Assert.Equal("hello\n", File.ReadAllText(Path.Combine(path, "README.md")));
        Assert.Equal("1\n2\n3\n4\n5\n", File.ReadAllText(Path.Combine(path, "src/one.txt")));
        Assert.False(Posix.Exists(Path.Combine(path, "away")));
        Assert.Equal("hello\n", repo.Read("README.md"));
    }

    [Fact]
    public async Task Kept_files_survive_a_normal_change_of_tree_in_two_git_processes()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var gate = new GateWorktree(repo.Repository, TimeProvider.System);
        var path = await gate.PrepareAsync(1, repo.Oid("trunk^{tree}"), ["cache/"], Ct);
        GitTestRepo.Write(path, "cache/c", "c");
        GitTestRepo.Write(path, "other/o", "o");
        var started = repo.Repository.Git.Started;
        await gate.PrepareAsync(1, repo.Oid("trunk^{tree}"), ["cache/"], Ct);
        Assert.Equal(2, repo.Repository.Git.Started - started);
        Assert.True(File.Exists(Path.Combine(path, "cache/c")));
        Assert.False(Directory.Exists(Path.Combine(path, "other")));
        Assert.Equal("", repo.Run("status", "--porcelain"));
    }

    [Fact]
    public async Task A_gates_own_git_does_not_find_the_users_repository()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var gate = new GateWorktree(repo.Repository, TimeProvider.System);
        var path = await gate.PrepareAsync(0, repo.Oid("trunk^{tree}"), [], Ct);
        var info = new ProcessStartInfo("git", ["rev-parse", "--show-toplevel"]) { WorkingDirectory = path, RedirectStandardError = true, RedirectStandardOutput = true };
        foreach (var (name, value) in gate.Environment)
            info.Environment[name] = value;
        using var process = Process.Start(info)!;
        await process.WaitForExitAsync(Ct);
        Assert.Equal(128, process.ExitCode);
    }

    [Fact]
    public async Task Bad_input_is_refused_by_name()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var gate = new GateWorktree(repo.Repository, TimeProvider.System);
        Assert.Equal(ErrorCode.InvalidInput, (await Assert.ThrowsAsync<DroverException>(() => gate.PrepareAsync(0, repo.Oid("trunk^{tree}"), ["!all"], Ct))).Code);
        Assert.Equal(ErrorCode.InvalidInput, (await Assert.ThrowsAsync<DroverException>(() => gate.PrepareAsync(0, "trunk", [], Ct))).Code);
        await Assert.ThrowsAsync<GitException>(() => gate.PrepareAsync(0, new string('1', 40), [], Ct));
    }

    [Fact]
    public async Task Damaged_index_of_a_killed_git_is_rebuilt()
    {
        using var repo = await new GitTestRepo().OpenAsync();
        var gate = new GateWorktree(repo.Repository, TimeProvider.System);
        var path = await gate.PrepareAsync(0, repo.Oid("trunk^{tree}"), [], Ct);
        File.WriteAllText(Path.Combine(repo.Repository.Hermetic.IndexDirectory, "gate-0"), "DIRC torn");
        GitTestRepo.Write(path, "README.md", "x");
        await gate.PrepareAsync(0, repo.Oid("trunk^{tree}"), [], Ct);
        Assert.Equal("hello\n", File.ReadAllText(Path.Combine(path, "README.md")));
    }
}
